-- All that was invoiced, and all that was metered, is in the reconciliation, once; and what moves between days leaves one and reaches the other.
WITH sums AS (
  SELECT
    (SELECT coalesce(sum(amount_usd), 0) FROM invoice_lines) AS lines_usd,
    (SELECT coalesce(sum(invoiced_usd), 0) FROM invoice_reconciliation) AS invoiced_usd,
    (SELECT coalesce(sum(list_cost_usd), 0) FROM calls WHERE provider IS NOT NULL AND result IS DISTINCT FROM 'refused')
      AS list_usd,
    (SELECT coalesce(sum(metered_list_usd), 0) FROM invoice_reconciliation) AS metered_list_usd,
    (SELECT count(*) FROM calls WHERE provider IS NOT NULL AND result IS DISTINCT FROM 'refused') AS calls,
    (SELECT coalesce(sum(calls), 0) FROM invoice_reconciliation) AS metered_calls,
    (SELECT coalesce(sum(day_shift_usd), 0) FROM invoice_reconciliation) AS shifted_usd
)
FROM sums
WHERE lines_usd <> invoiced_usd OR list_usd <> metered_list_usd OR calls <> metered_calls OR shifted_usd <> 0
