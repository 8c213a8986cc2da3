"""Agreement between label maps and between measures."""
