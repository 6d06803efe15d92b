"""Images and labels. Free of JAX: worker processes import it."""
