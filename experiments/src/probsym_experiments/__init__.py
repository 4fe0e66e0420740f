"""The paper's experiments: one module each, presets as data, results and tables. `probsym run` starts them."""
