"""A system that breaks by plan, on hosts that its autoscaler orders; its client, and the verdict on its promises."""
