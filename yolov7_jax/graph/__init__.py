"""What a network is. Standard library only."""
