"""What a scene is made of: cameras, Gaussians, and how Gaussians are initialised."""
