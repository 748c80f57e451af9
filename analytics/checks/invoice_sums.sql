-- All that was invoiced, and all that was metered, is in the reconciliation, once; and what moves between days leaves one and reaches the other.
WITH reconciled AS (
  SELECT
    coalesce(sum(invoiced_usd), 0) AS invoiced_usd,
    coalesce(sum(metered_list_usd), 0) AS metered_usd,
    coalesce(sum(calls), 0) AS metered_calls,
    coalesce(sum(day_shift_usd), 0) AS shifted_usd
  FROM invoice_reconciliation
),
sums AS (
  SELECT
    (SELECT coalesce(sum(amount_usd), 0) FROM invoice_lines) AS lines_usd,
    (SELECT (coalesce(sum(list_cost_usd), 0), count(*)) FROM calls
      WHERE provider IS NOT NULL AND result IS DISTINCT FROM 'refused') AS of_calls
)
FROM reconciled, sums
WHERE lines_usd <> invoiced_usd OR of_calls <> (metered_usd, metered_calls) OR shifted_usd <> 0
