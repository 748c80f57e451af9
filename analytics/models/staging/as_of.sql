-- The moment at which all is looked at: the variable as_of (SET VARIABLE as_of = TIMESTAMP '2026-11-01'), else now. One row per database.
-- @as_of: The moment, UTC
-- With the variable, relations show what was known before that moment: calls that were recorded and corrected, versions of
-- tickets, pull requests and deployments that were seen. What depends on time, such as outcomes, asks here alone.
SELECT coalesce(CAST(getvariable('as_of') AS TIMESTAMP), make_timestamp(epoch_us(now()))) AS as_of
