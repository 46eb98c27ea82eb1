"""All tests; `bin/test` runs them."""
