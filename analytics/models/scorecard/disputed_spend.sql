-- Spend whose ticket is disputed. One row per call.
-- @call_id: Identifier of the call
-- @disputed_usd: Part of its cost, USD
SELECT CAST(NULL AS VARCHAR) AS call_id, CAST(NULL AS DECIMAL(18,9)) AS disputed_usd WHERE false
