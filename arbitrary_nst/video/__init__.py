"""Video in the style of paintings: any length in flat memory, steady strokes, audio and timing as they were."""
