-- What the rules of waste judge by. One row per installation.
-- @as_of: Moment of judgement, UTC: who looks for waste sets it as the variable judged_at
SELECT settings, versions, parameters, CAST(getvariable('judged_at') AS TIMESTAMP) AS as_of
FROM waste_settings
