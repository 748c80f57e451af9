-- What explains an invoice sums to its difference from what was metered, and no part of it is on the other side of zero than the rest.
SELECT provider, day, model, residual_usd, unexplained_usd
FROM invoice_reconciliation
WHERE is_invoiced AND (
  residual_usd IS DISTINCT FROM tax_usd + credit_usd + fee_usd + day_shift_usd + unmapped_usd + bypassed_usd
    + unpriced_usd + interrupted_usd + aborted_usd + estimated_usd + unexplained_usd
  OR sign(interrupted_usd) * sign(unexplained_usd) < 0
  OR sign(aborted_usd) * sign(unexplained_usd) < 0
  OR sign(estimated_usd) * sign(unexplained_usd) < 0
  OR bypassed_usd < 0
  OR unpriced_usd < 0
)
