"""Images read as Ultralytics reads them."""
