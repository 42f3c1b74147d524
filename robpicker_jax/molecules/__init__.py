"""What labels and simulation are made from: phantoms, solids, density maps, masks."""
