-- Spend by ticket source and state is that of all calls, and so is the number of calls.
WITH sums AS (
  SELECT
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(calls), 0)) FROM ticket_coverage) AS by_source,
    (SELECT (coalesce(sum(list_cost_usd), 0), count(*)) FROM calls) AS total
)
FROM sums
WHERE by_source <> total
