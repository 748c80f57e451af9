-- A charge is of one day, a bill of one month, and a charge that corrects nothing is on the bill of its month.
SELECT "x_RowId", "ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart", "BillingPeriodEnd"
FROM exported
WHERE "ChargePeriodEnd" IS DISTINCT FROM "ChargePeriodStart" + INTERVAL 1 DAY
  OR "BillingPeriodEnd" IS DISTINCT FROM "BillingPeriodStart" + INTERVAL 1 MONTH
  OR "BillingPeriodStart" <> date_trunc('month', "BillingPeriodStart")
  OR "ChargePeriodStart" <> date_trunc('day', "ChargePeriodStart")
  OR ("ChargeClass" IS NULL AND date_trunc('month', "ChargePeriodStart") <> "BillingPeriodStart")
  OR ("ChargeClass" IS NOT NULL AND "ChargePeriodStart" >= "BillingPeriodStart")
