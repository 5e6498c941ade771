"""How surfaces look under light: BRDF, split-sum, Monte Carlo."""
