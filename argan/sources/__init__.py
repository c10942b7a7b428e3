"""Where photographs come from: Oxford Flowers, CUB birds, FFHQ faces; how files are fetched and archives opened."""
