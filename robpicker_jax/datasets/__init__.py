"""What is on disk: finding tomograms and their lists, and opening them."""
