-- The exported rows as CSV, always in the same order; times as the specification writes them, no value = an empty field.
COPY (
  SELECT * REPLACE (
    strftime("BillingPeriodStart", '%Y-%m-%dT%H:%M:%SZ') AS "BillingPeriodStart",
    strftime("BillingPeriodEnd", '%Y-%m-%dT%H:%M:%SZ') AS "BillingPeriodEnd",
    strftime("ChargePeriodStart", '%Y-%m-%dT%H:%M:%SZ') AS "ChargePeriodStart",
    strftime("ChargePeriodEnd", '%Y-%m-%dT%H:%M:%SZ') AS "ChargePeriodEnd"
  )
  FROM exported ORDER BY "ChargePeriodStart", "x_RowId"
) TO $file (FORMAT csv, HEADER)
