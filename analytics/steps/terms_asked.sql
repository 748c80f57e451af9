-- Budgets and periods that are asked about.
FROM found
