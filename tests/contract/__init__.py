"""What every backend and driver must do, run over all of them."""
