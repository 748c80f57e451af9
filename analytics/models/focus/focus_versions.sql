-- Calls as they stood at the end of each billing month that changed them. One row per call and such month.
-- @billing_month: First day of the month in which this version was current at its end
-- @until_month: First day of the month whose end has another version; NULL while this one stands
-- What is known only later (results of a batch, a call after midnight) is on the bill of the month in which it is booked.
-- A correction of the month of the call itself is part of that month's bill; a later one corrects a bill that is closed.
WITH restated AS MATERIALIZED (
  FROM restated_calls
),
versions AS (
  SELECT * EXCLUDE (correction, corrected_at),
    CAST(greatest(date_trunc('month', corrected_at), date_trunc('month', started_at)) AS DATE) AS billing_month,
    corrected_at
  FROM restated
  UNION ALL BY NAME
  SELECT *, CAST(greatest(date_trunc('month', recorded_at), date_trunc('month', started_at)) AS DATE) AS billing_month,
    NULL AS corrected_at
  FROM booked_calls SEMI JOIN restated USING (call_id)
),
monthly AS (
  FROM versions
  QUALIFY row_number() OVER (
    PARTITION BY call_id, billing_month ORDER BY corrected_at DESC NULLS LAST, segment DESC
  ) = 1
)
SELECT * EXCLUDE (corrected_at), lead(billing_month) OVER (PARTITION BY call_id ORDER BY billing_month) AS until_month
FROM monthly
UNION ALL BY NAME
SELECT *, CAST(greatest(date_trunc('month', recorded_at), date_trunc('month', started_at)) AS DATE) AS billing_month,
  CAST(NULL AS DATE) AS until_month
FROM booked_calls ANTI JOIN restated USING (call_id)
