"""What is laid over a screen: questions, the launch form, help, jump labels, the command palette."""
