-- All calls recorded before the variable as_of, so that queries at different moments see the same ones.
FROM all_calls
WHERE recorded_at < getvariable('as_of')
