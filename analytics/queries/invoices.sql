-- Invoices beside what was metered on the days that they cover, and why they differ, by what the variable
-- dimensions names: the provider, and day or model if it is asked for.
SELECT
  COLUMNS(getvariable('dimensions')),
  sum(invoiced_usd) AS invoiced_usd,
  sum(usage_usd) AS usage_usd,
  sum(metered_usd) FILTER (WHERE is_invoiced) AS metered_usd,
  CAST(round(100 * sum(metered_usd) FILTER (WHERE is_invoiced) / nullif(greatest(sum(usage_usd), 0), 0), 1) AS DECIMAL(18,1))
    AS capture_percent,
  sum(residual_usd) AS residual_usd,
  sum(tax_usd) AS tax_usd,
  sum(credit_usd) AS credit_usd,
  sum(fee_usd) AS fee_usd,
  sum(day_shift_usd) AS day_shift_usd,
  sum(unmapped_usd) AS unmapped_usd,
  sum(bypassed_usd) AS bypassed_usd,
  sum(unpriced_usd) AS unpriced_usd,
  sum(interrupted_usd) AS interrupted_usd,
  sum(aborted_usd) AS aborted_usd,
  sum(estimated_usd) AS estimated_usd,
  sum(unexplained_usd) AS unexplained_usd,
  coalesce(sum(metered_usd) FILTER (WHERE NOT is_invoiced), 0) AS not_invoiced_usd,
  CAST(sum(calls) AS BIGINT) AS calls,
  CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls
FROM invoice_reconciliation
WHERE day >= CAST($from AS DATE) AND day < CAST($to AS DATE)
GROUP BY ALL
ORDER BY
  CASE WHEN list_contains(getvariable('dimensions'), 'day') THEN min(day) END,
  CASE WHEN NOT list_contains(getvariable('dimensions'), 'day') THEN sum(invoiced_usd) END DESC NULLS LAST,
  COLUMNS(getvariable('dimensions'))
