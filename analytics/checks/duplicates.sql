-- No call is counted twice.
SELECT call_id, count(*) AS times, list_sort(list(DISTINCT segment)) AS segments
FROM calls
GROUP BY call_id
HAVING count(*) > 1
