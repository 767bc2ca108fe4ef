"""Commands about budgets, costs and prices."""
