-- Where do providers' invoices differ from what was metered?
SELECT * FROM invoice_reconciliation ORDER BY day DESC, provider, model LIMIT 200
