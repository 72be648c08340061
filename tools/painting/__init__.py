"""The six manners of the example style pictures, one module each, and the canvas they share."""
