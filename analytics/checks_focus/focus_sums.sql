-- Rows sum to the ledger, to the nano-dollar: those of a day to its calls as their month's bill has them.
WITH charged AS (
  SELECT CAST("ChargePeriodStart" AS DATE) AS charge_day, "SubAccountId" AS team_id,
    sum("ListCost") AS list_usd, sum("ContractedCost") AS contracted_usd
  FROM exported WHERE "ChargeClass" IS NULL
  GROUP BY ALL
),
metered AS (
  SELECT CAST(started_at AS DATE) AS charge_day, team_id,
    sum(coalesce(list_cost_usd, 0)) AS list_usd, sum(coalesce(contracted_cost_usd, 0)) AS contracted_usd
  FROM focus_versions
  WHERE billing_month = date_trunc('month', started_at) AND result IS DISTINCT FROM 'refused'
    AND CAST(started_at AS DATE) BETWEEN getvariable('period')[1] AND getvariable('period')[2]
  GROUP BY ALL
)
SELECT
  coalesce(charged.charge_day, metered.charge_day) AS charge_day, coalesce(charged.team_id, metered.team_id) AS team_id,
  charged.list_usd, metered.list_usd, charged.contracted_usd, metered.contracted_usd
FROM charged FULL JOIN metered ON charged.charge_day = metered.charge_day AND charged.team_id IS NOT DISTINCT FROM metered.team_id
WHERE coalesce(charged.list_usd, 0) <> coalesce(metered.list_usd, 0)
  OR coalesce(charged.contracted_usd, 0) <> coalesce(metered.contracted_usd, 0)
