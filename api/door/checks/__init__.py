"""What the door checks of a draft once its model is known."""
