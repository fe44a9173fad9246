"""The specs of timm's networks, read off their modules."""
