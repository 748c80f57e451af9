-- Waste findings are one each, and claim what waste_claimed says of their calls.
WITH claimed AS (
  SELECT part.finding_id AS finding_id, sum(part.claimed_usd) AS claimed_usd
  FROM (SELECT unnest(parts) AS part FROM waste_claimed)
  GROUP BY ALL
)
SELECT
  finding_id, count(*) AS times, sum(findings.claimed_usd) AS finding_usd, any_value(claimed.claimed_usd) AS claimed_usd
FROM waste_findings AS findings FULL JOIN claimed USING (finding_id)
GROUP BY finding_id
HAVING count(*) > 1 OR sum(findings.claimed_usd) IS DISTINCT FROM coalesce(any_value(claimed.claimed_usd), 0)
