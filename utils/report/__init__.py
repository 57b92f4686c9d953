"""What readers see: tables, plots, diagrams, statistics, and helpers for notebooks."""
