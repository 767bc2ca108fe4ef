"""What a pool will be asked for: level, trend and season, and by how much such forecasts were wrong."""
