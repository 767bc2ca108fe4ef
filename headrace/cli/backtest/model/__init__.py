"""The model that a backtest runs: a fleet of hosts, its queue, the policies that steer it, and the paid API."""
