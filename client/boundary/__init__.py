"""Between the agent, which has the data, and the courier, which has the network."""
