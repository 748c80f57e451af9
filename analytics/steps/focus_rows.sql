-- The rows to export: charges of the days asked for (the variable period, both included), and corrections on the bills
-- of months that begin in them.
CREATE OR REPLACE TEMP TABLE exported AS
FROM query_table('focus_' || replace($version, '.', '_'))
WHERE CAST(CASE WHEN "ChargeClass" IS NULL THEN "ChargePeriodStart" ELSE "BillingPeriodStart" END AS DATE)
  BETWEEN getvariable('period')[1] AND getvariable('period')[2]
