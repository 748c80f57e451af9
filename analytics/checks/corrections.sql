-- Spend as first recorded and what corrections changed sum to the spend of all calls.
WITH sums AS (
  SELECT
    (SELECT coalesce(sum(list_cost_usd), 0) FROM booked_calls) AS booked_usd,
    (SELECT coalesce(sum(coalesce(list_cost_after_usd, 0) - coalesce(list_cost_before_usd, 0)), 0) FROM corrections)
      AS corrected_usd,
    (SELECT coalesce(sum(list_cost_usd), 0) FROM calls) AS total_usd
)
FROM sums
WHERE booked_usd + corrected_usd <> total_usd
