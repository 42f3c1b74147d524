"""What the commands share, and one module for each: parse, call, report."""
