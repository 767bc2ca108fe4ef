"""`headrace backtest`: runs the product's own scaling policies, and others, on a load and a model of hosts."""
