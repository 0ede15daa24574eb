"""What docs/adapt.html is made of."""
