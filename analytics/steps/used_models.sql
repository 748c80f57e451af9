-- Models that calls used, by provider.
SELECT DISTINCT provider, model FROM waste_calls WHERE model IS NOT NULL ORDER BY ALL
