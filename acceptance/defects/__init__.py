"""Hand-made specs without a task program: sound ones, and each kind of defect planted in one of them."""
