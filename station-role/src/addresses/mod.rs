//! Which host has which mapped address, and the router's table kept equal to it (R110-R116).
