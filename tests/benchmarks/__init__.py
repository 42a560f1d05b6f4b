"""Speed, side by side with the alternatives; run by hand."""
