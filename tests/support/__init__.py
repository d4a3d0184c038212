"""What several tests share. Nothing here asserts; what starts something also stops it."""
