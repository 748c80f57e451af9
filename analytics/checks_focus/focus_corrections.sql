-- Corrections sum to what became known after a bill was closed, to the nano-dollar: those on a bill to what its month brought.
WITH corrected AS (
  SELECT CAST("BillingPeriodStart" AS DATE) AS bill, "SubAccountId" AS team_id,
    sum("ListCost") AS list_usd, sum("ContractedCost") AS contracted_usd
  FROM exported WHERE "ChargeClass" = 'Correction'
  GROUP BY ALL
),
known AS (
  SELECT billing_month AS bill, team_id, list_cost_usd, contracted_cost_usd, result
  FROM focus_versions WHERE billing_month <> date_trunc('month', started_at)
  UNION ALL
  SELECT until_month, team_id, -list_cost_usd, -contracted_cost_usd, result
  FROM focus_versions WHERE until_month IS NOT NULL
),
brought AS (
  SELECT bill, team_id, sum(coalesce(list_cost_usd, 0)) AS list_usd, sum(coalesce(contracted_cost_usd, 0)) AS contracted_usd
  FROM known
  WHERE result IS DISTINCT FROM 'refused' AND bill BETWEEN getvariable('period')[1] AND getvariable('period')[2]
  GROUP BY ALL
)
SELECT
  coalesce(corrected.bill, brought.bill) AS bill, coalesce(corrected.team_id, brought.team_id) AS team_id,
  corrected.list_usd, brought.list_usd, corrected.contracted_usd, brought.contracted_usd
FROM corrected FULL JOIN brought ON corrected.bill = brought.bill AND corrected.team_id IS NOT DISTINCT FROM brought.team_id
WHERE coalesce(corrected.list_usd, 0) <> coalesce(brought.list_usd, 0)
  OR coalesce(corrected.contracted_usd, 0) <> coalesce(brought.contracted_usd, 0)
