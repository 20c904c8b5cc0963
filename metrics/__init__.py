"""Counting: funnels, daily users and events per minute, of one partition and merged over all."""
